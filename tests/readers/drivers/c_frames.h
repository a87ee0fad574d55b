/* What a driver says of each entry: a line "NAME SIZE", the name in hex, then the content. */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char frame_buffer[1 << 20];

static void
fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why ? why : "?");
    exit(1);
}

static void
begin_frame(const char *name, uint64_t size)
{
    for (size_t i = 0; name[i]; i++)
        printf("%02x", (unsigned char)name[i]);
    printf(" %" PRIu64 "\n", size);
}

static void
write_frame(const void *data, size_t length)
{
    if (fwrite(data, 1, length, stdout) != length)
        fail("stdout", "can't be written");
}
