/*
 * The limit of FUSE: a file system with one file, of zeros, that reads nothing to answer a read.
 *
 *     nullfs NAME SIZE MOUNTPOINT
 *
 * Stays in the foreground, with as many threads as libfuse sees fit. What any other file system
 * does beyond this is its own work; what this one costs is the kernel's.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_INODE = 2, LARGEST_READ = 1 << 20 };

static const char *name;
static off_t size;
static char *zeros;

static void attributes(fuse_ino_t inode, struct stat *status)
{
	memset(status, 0, sizeof *status);
	status->st_ino = inode;
	status->st_nlink = 1;
	status->st_mtime = 1000000000;
	if (inode == FUSE_ROOT_ID) {
		status->st_mode = S_IFDIR | 0555;
	} else {
		status->st_mode = S_IFREG | 0444;
		status->st_size = size;
	}
}

static void do_init(void *data, struct fuse_conn_info *connection)
{
	(void)data;
	connection->max_readahead = LARGEST_READ;
}

static void do_lookup(fuse_req_t request, fuse_ino_t parent, const char *asked)
{
	struct fuse_entry_param entry;

	if (parent != FUSE_ROOT_ID || strcmp(asked, name) != 0) {
		fuse_reply_err(request, ENOENT);
		return;
	}
	memset(&entry, 0, sizeof entry);
	entry.ino = FILE_INODE;
	entry.attr_timeout = entry.entry_timeout = 1.0;
	attributes(FILE_INODE, &entry.attr);
	fuse_reply_entry(request, &entry);
}

static void do_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info)
{
	struct stat status;

	(void)info;
	attributes(inode, &status);
	fuse_reply_attr(request, &status, 1.0);
}

static void do_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info)
{
	(void)inode;
	info->keep_cache = 1;
	fuse_reply_open(request, info);
}

static void do_read(fuse_req_t request, fuse_ino_t inode, size_t length, off_t offset,
		    struct fuse_file_info *info)
{
	(void)inode;
	(void)info;
	if (offset >= size)
		length = 0;
	else if ((off_t)length > size - offset)
		length = (size_t)(size - offset);
	if (length > LARGEST_READ)
		fuse_reply_err(request, EIO);
	else
		fuse_reply_buf(request, zeros, length);
}

static const struct fuse_lowlevel_ops operations = {
	.init = do_init,
	.lookup = do_lookup,
	.getattr = do_getattr,
	.open = do_open,
	.read = do_read,
};

int main(int argc, char **argv)
{
	char *options[] = {argv[0], "-o", "ro,fsname=nullfs", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, options);
	struct fuse_loop_config *config;
	struct fuse_session *session;
	int result = 1;

	if (argc != 4) {
		fprintf(stderr, "usage: %s NAME SIZE MOUNTPOINT\n", argv[0]);
		return 2;
	}
	name = argv[1];
	size = (off_t)strtoll(argv[2], NULL, 10);
	zeros = calloc(1, LARGEST_READ);
	session = fuse_session_new(&args, &operations, sizeof operations, NULL);
	config = fuse_loop_cfg_create();
	if (!zeros || !session || !config)
		return 1;
	fuse_loop_cfg_set_clone_fd(config, 1);
	if (fuse_set_signal_handlers(session) == 0) {
		if (fuse_session_mount(session, argv[3]) == 0) {
			result = fuse_session_loop_mt(session, config) ? 1 : 0;
			fuse_session_unmount(session);
		}
		fuse_remove_signal_handlers(session);
	}
	fuse_session_destroy(session);
	fuse_loop_cfg_destroy(config);
	free(zeros);
	return result;
}
