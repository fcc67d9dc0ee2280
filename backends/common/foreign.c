/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a descriptor is, by what the kernel knows of it; see foreign.h.
 *
 * statx() with AT_STATX_DONT_SYNC says what is remembered, and asks nobody. It does not say what
 * kind of file system it is. Memory (memfd, tmpfs, huge pages) is known by its seals, which no
 * other file has; a file system on a disk by its device number: to put a process behind one of
 * those (fuseblk) takes root. Others have numbers that say nothing. The list of mounts has their
 * types, by the number of the mount; but for FUSE only who may do anything on this machine mounts
 * something there. A mount that is not in it is of other name-spaces, where anybody can mount FUSE:
 * that is not believed to be anything.
 */
#include "common/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static atomic_uint aside;

static int look(int fd, struct statx *what)
{
    int ret = statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
                    STATX_TYPE | STATX_INO | STATX_MNT_ID, what);

    return ret < 0 ? -errno : 0;
}

static struct foreign_identity identity_of(const struct statx *what)
{
    return (struct foreign_identity){
        .device = makedev(what->stx_dev_major, what->stx_dev_minor),
        .inode = (ino_t)what->stx_ino,
    };
}

int foreign_identify(int fd, struct foreign_identity *identity)
{
    struct statx what;
    int ret = look(fd, &what);

    if (ret == 0) {
        *identity = identity_of(&what);
    }
    return ret;
}

/* ---- the list of mounts ---------------------------------------------------------------------- */

/* Where reading is in a line: its number, then fields, then one that is "-", then the type. */
struct mount_line {
    uint64_t number;
    enum { IN_NUMBER, IN_FIELDS, IN_TYPE, BEHIND } at;
    char field[5]; /* how it begins: as much as is compared */
    unsigned length;
    bool is_fuse;
};

static void end_of_field(struct mount_line *line)
{
    bool dash = line->length == 1 && line->field[0] == '-';

    if (line->at == IN_NUMBER) {
        line->at = IN_FIELDS;
    } else if (line->at == IN_FIELDS && dash) {
        line->at = IN_TYPE;
    } else if (line->at == IN_TYPE) {
        line->is_fuse = line->length >= 4 && memcmp(line->field, "fuse", 4) == 0;
        line->at = BEHIND;
    }
    line->length = 0;
}

/* Takes a character. Returns true at the end of a line. */
static bool take(struct mount_line *line, char c)
{
    if (c == ' ' || c == '\n') {
        end_of_field(line);
    } else if (line->at == IN_NUMBER && c >= '0' && c <= '9') {
        line->number = 10 * line->number + (uint64_t)(c - '0');
    } else if (line->length < sizeof(line->field)) {
        line->field[line->length++] = c;
    }
    return c == '\n';
}

/* Is it a mount that we see, and not FUSE? */
static bool mount_is_trusted(uint64_t number)
{
    int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    struct mount_line line = {0};
    bool found = false, trusted = false;
    char text[1024];
    ssize_t n;

    while (fd >= 0 && !found && (n = read(fd, text, sizeof(text))) > 0) {
        for (ssize_t i = 0; i < n && !found; i++) {
            if (take(&line, text[i])) {
                found = line.number == number;
                trusted = found && line.at == BEHIND && !line.is_fuse;
                line = (struct mount_line){0};
            }
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return trusted;
}

/* ---- what it is ------------------------------------------------------------------------------ */

/* Only files in memory can be sealed. */
static bool is_memory(int fd)
{
    return fcntl(fd, F_GET_SEALS) >= 0;
}

static bool is_on_trusted_mount(const struct statx *what)
{
    return what->stx_dev_major != 0 ||
           ((what->stx_mask & STATX_MNT_ID) && mount_is_trusted(what->stx_mnt_id));
}

bool foreign_is_file(int fd, struct foreign_identity *identity)
{
    struct statx what;

    if (look(fd, &what) < 0 || !S_ISREG(what.stx_mode) ||
        !(is_memory(fd) || is_on_trusted_mount(&what))) {
        return false;
    }
    if (identity) {
        *identity = identity_of(&what);
    }
    return true;
}

/* Eventfds and their like, which all share one inode: it is looked for in one of our own, once. */
static bool is_anonymous(const struct statx *what)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct foreign_identity theirs;
    static bool known;
    const struct foreign_identity it = identity_of(what);
    bool is;

    pthread_mutex_lock(&lock);
    if (!known) {
        int fd = eventfd(0, EFD_CLOEXEC);

        known = foreign_identify(fd, &theirs) == 0;
        if (fd >= 0) {
            close(fd);
        }
    }
    is = known && it.device == theirs.device && it.inode == theirs.inode;
    pthread_mutex_unlock(&lock);
    return is;
}

bool foreign_is_anonymous(int fd)
{
    struct statx what;

    return look(fd, &what) == 0 && is_anonymous(&what);
}

/* Those of a stream to another machine can wait. */
static bool is_plain_socket(int fd)
{
    int domain, type;
    socklen_t size = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
           (domain == AF_UNIX || type == SOCK_DGRAM);
}

bool foreign_closes_at_once(int fd)
{
    struct statx what;

    if (is_memory(fd)) {
        return true;
    }
    if (look(fd, &what) < 0) {
        return false;
    }
    switch (what.stx_mode & S_IFMT) {
    case S_IFREG:
        return is_anonymous(&what) || is_on_trusted_mount(&what);
    case S_IFSOCK:
        return is_plain_socket(fd);
    case S_IFCHR: /* of these /dev/null and /dev/zero */
        return what.stx_rdev_major == 1;
    case S_IFIFO:
    case S_IFDIR:
        return true;
    default:
        return is_anonymous(&what);
    }
}

void foreign_close(int fd)
{
    if (foreign_closes_at_once(fd)) {
        close(fd);
    } else {
        atomic_fetch_add(&aside, 1);
    }
}

unsigned foreign_aside(void)
{
    return atomic_load(&aside);
}
