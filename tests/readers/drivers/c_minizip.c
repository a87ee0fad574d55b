/* All entries of an archive by minizip, which comes with zlib. */

#include <unzip.h>

#include "c_frames.h"

int
main(int argc, char **argv)
{
    static char name[65536 + 1];
    unz_file_info64 info;
    int got, status;

    if (argc != 2)
        fail("usage", "c_minizip ARCHIVE");
    unzFile archive = unzOpen64(argv[1]);
    if (!archive)
        fail(argv[1], "unzOpen64");
    for (status = unzGoToFirstFile(archive); status == UNZ_OK; status = unzGoToNextFile(archive)) {
        uint64_t sum = 0;
        if (unzGetCurrentFileInfo64(archive, &info, name, sizeof name, NULL, 0, NULL, 0) != UNZ_OK)
            fail(argv[1], "unzGetCurrentFileInfo64");
        begin_frame(name, info.uncompressed_size);
        if (unzOpenCurrentFile(archive) != UNZ_OK)
            fail(name, "unzOpenCurrentFile");
        while ((got = unzReadCurrentFile(archive, frame_buffer, sizeof frame_buffer)) > 0) {
            sum += got;
            write_frame(frame_buffer, got);
        }
        if (got < 0 || sum != info.uncompressed_size)
            fail(name, "unzReadCurrentFile");
        if (unzCloseCurrentFile(archive) != UNZ_OK) /* the CRC-32 */
            fail(name, "unzCloseCurrentFile");
    }
    if (status != UNZ_END_OF_LIST_OF_FILE)
        fail(argv[1], "unzGoToNextFile");
    unzClose(archive);
    return fflush(stdout) ? 1 : 0;
}
