/*
 * A source that is far: passes a folder through, read-only, and waits in each call as told.
 *
 *     slowfs SOURCE MOUNTPOINT CONTROL CALLS_AT_ONCE NAME_SECONDS keep|drop|direct
 *
 * CONTROL is a file of unsigned 64 bit numbers that is mapped here: for each kind of call, in the
 * order below, the microseconds that it waits; then for each how many there were. Whoever maps it,
 * too, changes the one and reads (or clears) the other while this runs.
 *
 * No more than CALLS_AT_ONCE are at work at a time; the others queue. The kernel keeps names and
 * attributes for NAME_SECONDS, as an NFS client does for acregmin (a listing brings the attributes
 * along then, as READDIRPLUS does); with 0 every walk along a path asks for each of its parts.
 * Data is kept in the page cache until the attributes show a change ("keep", as NFS does), until
 * the file is opened anew ("drop"), or not at all ("direct": then nothing is read ahead either).
 *
 * Stays in the foreground.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* bench/peers/slowfs.py has the same order. STAT is the kernel's LOOKUP and GETATTR. */
enum kind { STAT, OPEN, READ, OPENDIR, READDIR, READLINK, STATFS, KINDS };

enum { SECOND_IN_MICROSECONDS = 1000000, MICROSECOND_IN_NANOSECONDS = 1000, UNBOUNDED = 65535 };

struct control {
	_Atomic uint64_t wait[KINDS];
	_Atomic uint64_t calls[KINDS];
};

struct directory {
	DIR *stream;
	/* Where the stream stands, and what was read there but had no room in the last answer. */
	off_t position;
	struct dirent *pending;
};

static struct control *control;
static int source;
static unsigned int at_once;
static double name_seconds;
static int keep, direct;

/* Each call starts with it. */
static void wait_for(enum kind kind)
{
	uint64_t microseconds = atomic_load(&control->wait[kind]);
	struct timespec left = {
		.tv_sec = (time_t)(microseconds / SECOND_IN_MICROSECONDS),
		.tv_nsec = (long)(microseconds % SECOND_IN_MICROSECONDS) *
			   MICROSECOND_IN_NANOSECONDS,
	};

	atomic_fetch_add(&control->calls[kind], 1);
	if (microseconds)
		while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
			;
}

static int failed_if(int result)
{
	return result < 0 ? -errno : 0;
}

static const char *below(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static void *do_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
	/* The kernel reads ahead as it does on NFS, which knows no such bounds: ours comes after. */
	connection->max_background = UNBOUNDED;
	connection->congestion_threshold = UNBOUNDED;
	if (name_seconds <= 0)
		connection->want &= ~(unsigned int)FUSE_CAP_READDIRPLUS;
	config->entry_timeout = name_seconds;
	config->attr_timeout = name_seconds;
	config->negative_timeout = name_seconds;
	config->use_ino = 1;
	config->nullpath_ok = 1;
	return NULL;
}

static int do_getattr(const char *path, struct stat *status, struct fuse_file_info *info)
{
	wait_for(STAT);
	if (path == NULL) /* an open file, whatever has become of its name */
		return failed_if(fstat((int)info->fh, status));
	return failed_if(fstatat(source, below(path), status, AT_SYMLINK_NOFOLLOW));
}

static int do_readlink(const char *path, char *target, size_t size)
{
	ssize_t length;

	wait_for(READLINK);
	length = readlinkat(source, below(path), target, size - 1);
	if (length < 0)
		return -errno;
	target[length] = '\0';
	return 0;
}

static int do_open(const char *path, struct fuse_file_info *info)
{
	int file;

	wait_for(OPEN);
	file = openat(source, below(path), (info->flags & ~O_NOFOLLOW) | O_CLOEXEC);
	if (file < 0)
		return -errno;
	info->fh = (uint64_t)file;
	info->keep_cache = (unsigned int)keep & 1;
	info->direct_io = (unsigned int)direct & 1;
	return 0;
}

static int do_read(const char *path, char *bytes, size_t size, off_t offset,
		   struct fuse_file_info *info)
{
	ssize_t length;

	(void)path;
	wait_for(READ);
	length = pread((int)info->fh, bytes, size, offset);
	return length < 0 ? -errno : (int)length;
}

static int do_release(const char *path, struct fuse_file_info *info)
{
	(void)path;
	close((int)info->fh);
	return 0;
}

static int do_opendir(const char *path, struct fuse_file_info *info)
{
	struct directory *directory;
	int file;

	wait_for(OPENDIR);
	file = openat(source, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (file < 0)
		return -errno;
	directory = calloc(1, sizeof *directory);
	if (directory)
		directory->stream = fdopendir(file);
	if (!directory || !directory->stream) {
		free(directory);
		close(file);
		return -ENOMEM;
	}
	info->fh = (uint64_t)(uintptr_t)directory;
	return 0;
}

static int do_readdir(const char *path, void *answer, fuse_fill_dir_t fill, off_t offset,
		      struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
	struct directory *directory = (struct directory *)(uintptr_t)info->fh;
	enum fuse_fill_dir_flags filled;
	struct stat status;

	(void)path;
	wait_for(READDIR);
	if (offset != directory->position) {
		seekdir(directory->stream, offset);
		directory->position = offset;
		directory->pending = NULL;
	}
	for (;;) {
		struct dirent *entry = directory->pending;

		if (!entry) {
			errno = 0;
			entry = directory->pending = readdir(directory->stream);
			if (!entry)
				return -errno;
		}
		filled = 0;
		if (flags & FUSE_READDIR_PLUS &&
		    fstatat(dirfd(directory->stream), entry->d_name, &status,
			    AT_SYMLINK_NOFOLLOW) == 0) {
			filled = FUSE_FILL_DIR_PLUS;
		} else {
			memset(&status, 0, sizeof status);
			status.st_ino = entry->d_ino;
			status.st_mode = (mode_t)DTTOIF(entry->d_type);
		}
		if (fill(answer, entry->d_name, &status, entry->d_off, filled))
			return 0;
		directory->pending = NULL;
		directory->position = entry->d_off;
	}
}

static int do_releasedir(const char *path, struct fuse_file_info *info)
{
	struct directory *directory = (struct directory *)(uintptr_t)info->fh;

	(void)path;
	closedir(directory->stream);
	free(directory);
	return 0;
}

static int do_statfs(const char *path, struct statvfs *status)
{
	(void)path;
	wait_for(STATFS);
	return failed_if(fstatvfs(source, status));
}

static const struct fuse_operations operations = {
	.init = do_init,
	.getattr = do_getattr,
	.readlink = do_readlink,
	.open = do_open,
	.read = do_read,
	.release = do_release,
	.opendir = do_opendir,
	.readdir = do_readdir,
	.releasedir = do_releasedir,
	.statfs = do_statfs,
};

static struct control *control_of(const char *path)
{
	int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *mapped;

	if (file < 0 || ftruncate(file, sizeof(struct control)))
		return NULL;
	mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	return mapped == MAP_FAILED ? NULL : mapped;
}

/* Until a signal, or somebody's umount. */
static int serve(const char *mountpoint, struct fuse *files)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_session *session = fuse_get_session(files);
	int result = 1;

	if (!config || fuse_set_signal_handlers(session))
		return 1;
	fuse_loop_cfg_set_clone_fd(config, 1);
	/* A call that waits has a thread to itself: this bounds them. */
	fuse_loop_cfg_set_max_threads(config, at_once);
	if (fuse_mount(files, mountpoint) == 0) {
		result = fuse_loop_mt(files, config) ? 1 : 0;
		fuse_unmount(files);
	}
	fuse_remove_signal_handlers(session);
	fuse_loop_cfg_destroy(config);
	return result;
}

int main(int argc, char **argv)
{
	char *options[] = {argv[0], "-o", "ro,default_permissions,fsname=slowfs", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, options);
	struct fuse *files;
	int result;

	if (argc != 7) {
		fprintf(stderr,
			"usage: %s SOURCE MOUNTPOINT CONTROL CALLS_AT_ONCE NAME_SECONDS"
			" keep|drop|direct\n",
			argv[0]);
		return 2;
	}
	source = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (source < 0) {
		perror(argv[1]);
		return 1;
	}
	control = control_of(argv[3]);
	if (!control) {
		perror(argv[3]);
		return 1;
	}
	at_once = (unsigned int)strtoul(argv[4], NULL, 10);
	name_seconds = strtod(argv[5], NULL);
	keep = strcmp(argv[6], "keep") == 0;
	direct = strcmp(argv[6], "direct") == 0;
	/* A tenth of a millisecond must not become 0.15 of it. */
	prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
	files = fuse_new(&args, &operations, sizeof operations, NULL);
	if (!files)
		return 1;
	result = serve(argv[2], files);
	fuse_destroy(files);
	return result;
}
