/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DPDK's testpmd as a child of a test: started, hung, killed, started again. It sends back what it
 * receives. (Tests in Python use testpmd.py.)
 */
#ifndef PEERS_FAR_H
#define PEERS_FAR_H

#include <stdbool.h>
#include <sys/types.h>

struct far {
    const char *program;
    const char *log; /* what it says is appended; or NULL */
    char socket[108];
    pid_t pid; /* 0: not running */
    int console;
};

/* `directory` is where its socket is made. */
void far_init(struct far *far, const char *program, const char *directory, const char *log);
/* Starts it and returns a socket that is connected to it; ends the program where that fails. */
int far_start(struct far *far);
/* It hangs: returns when none of its threads runs any more. */
void far_stop(struct far *far);
/* Ends it at once, as a crash does. */
void far_kill(struct far *far);

#endif
