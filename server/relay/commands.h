/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a client asks of a device that is in another process: checked, passed on, answered.
 *
 * A command that was passed on has a place in relay->commands until it is answered. The far server
 * is asked to answer all of them, writes that want no reply, too: what it has not answered bounds
 * what we take in. An error answer is looked at only when it is known whether the connection is
 * over: then it stands for no answer.
 */
#ifndef VIOMMU_SERVER_RELAY_COMMANDS_H
#define VIOMMU_SERVER_RELAY_COMMANDS_H

#include "vfio_user/connection.h"

struct relay;

/* See vfio_user/remote.h. */
void relay_command(void *opaque, struct vfio_user_message *message);

/* The far server is as it should be: what it refused is refused to the client. */
void relay_commands_settle(struct relay *relay);

/* It is gone: what is under way is answered as by a device that is down. Resets wait. Returns
 * whether any does. */
bool relay_commands_lose(struct relay *relay);

/* Answer the resets that wait, when no other command is under way: 0, or a negative errno. */
void relay_commands_reset(struct relay *relay, int error);

/* The client is gone: no answers. */
void relay_commands_drop(struct relay *relay);

#endif
