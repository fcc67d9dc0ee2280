/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A main for fuzz targets without libFuzzer: gives each file of the command line to the target
 * once, and each file inside a folder, in no particular order. So a corpus is a test with any
 * compiler, and counts for coverage.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long played;

static int fail(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return 1;
}

static int play_file(const char *path, size_t size)
{
    /* Exactly as large as the input, so that a sanitizer sees a read past its end. */
    uint8_t *data = malloc(size ? size : 1);
    FILE *file = fopen(path, "rb");
    int failed = 0;

    if (!data || !file || fread(data, 1, size, file) != size) {
        failed = fail(path);
    } else {
        LLVMFuzzerTestOneInput(data, size);
        played++;
    }
    if (file) {
        fclose(file);
    }
    free(data);
    return failed;
}

static int play(const char *path)
{
    struct stat status;
    struct dirent *entry;
    DIR *folder;
    int failed = 0;

    if (stat(path, &status)) {
        return fail(path);
    }
    if (S_ISREG(status.st_mode)) {
        return play_file(path, (size_t)status.st_size);
    }
    folder = opendir(path);
    if (!folder) {
        return fail(path);
    }
    while (!failed && (entry = readdir(folder))) {
        char child[PATH_MAX];

        if (entry->d_name[0] == '.') {
            continue;
        }
        if (snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) >= (int)sizeof(child)) {
            failed = 1;
        } else {
            failed = play(child);
        }
    }
    closedir(folder);
    return failed;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (play(argv[i])) {
            return 1;
        }
    }
    printf("%lu inputs played\n", played);
    return 0;
}
