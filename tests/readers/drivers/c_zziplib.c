/* All entries of an archive by zziplib. */

#include <zzip/zzip.h>

#include "c_frames.h"

int
main(int argc, char **argv)
{
    zzip_error_t error;
    ZZIP_DIRENT entry;

    if (argc != 2)
        fail("usage", "c_zziplib ARCHIVE");
    ZZIP_DIR *archive = zzip_dir_open(argv[1], &error);
    if (!archive)
        fail(argv[1], zzip_strerror(error));
    while (zzip_dir_read(archive, &entry)) {
        uint64_t sum = 0, size = (unsigned)entry.st_size;
        zzip_ssize_t got;
        ZZIP_FILE *file = zzip_file_open(archive, entry.d_name, 0);
        if (!file)
            fail(entry.d_name, zzip_strerror_of(archive));
        begin_frame(entry.d_name, size);
        while ((got = zzip_file_read(file, frame_buffer, sizeof frame_buffer)) > 0) {
            sum += got;
            write_frame(frame_buffer, got);
        }
        if (got < 0 || sum != size)
            fail(entry.d_name, zzip_strerror_of(archive));
        zzip_file_close(file);
    }
    zzip_dir_close(archive);
    return fflush(stdout) ? 1 : 0;
}
