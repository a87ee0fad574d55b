/* All entries of an archive by libzip, which checks its consistency first. */

#include <zip.h>

#include "c_frames.h"

int
main(int argc, char **argv)
{
    int code;
    zip_t *archive;

    if (argc != 2)
        fail("usage", "c_libzip ARCHIVE");
    archive = zip_open(argv[1], ZIP_RDONLY | ZIP_CHECKCONS, &code);
    if (!archive) {
        zip_error_t error;
        zip_error_init_with_code(&error, code);
        fail("zip_open", zip_error_strerror(&error));
    }
    zip_int64_t count = zip_get_num_entries(archive, 0);
    for (zip_int64_t i = 0; i < count; i++) {
        zip_stat_t status;
        zip_int64_t got;
        zip_uint64_t sum = 0;
        if (zip_stat_index(archive, i, 0, &status))
            fail("zip_stat_index", zip_strerror(archive));
        begin_frame(status.name, status.size);
        zip_file_t *file = zip_fopen_index(archive, i, 0);
        if (!file)
            fail(status.name, zip_strerror(archive));
        while ((got = zip_fread(file, frame_buffer, sizeof frame_buffer)) > 0) {
            sum += got;
            write_frame(frame_buffer, got);
        }
        /* At the end it has compared the CRC-32. */
        if (got < 0 || sum != status.size)
            fail(status.name, zip_file_strerror(file));
        zip_fclose(file);
    }
    zip_discard(archive);
    return fflush(stdout) ? 1 : 0;
}
