/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parsing of the VERSION message's text, with jansson.
 */
#include "version.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "vfio_user/protocol.h"

enum {
    TEXT_MAX = 16384,
};

static void get_number(const json_t *object, const char *key, uint64_t *value)
{
    const json_t *number = json_object_get(object, key);

    if (json_is_integer(number) && json_integer_value(number) >= 0) {
        *value = (uint64_t)json_integer_value(number);
    }
}

int vfio_user_capabilities_parse(const uint8_t *text, size_t size,
                                 struct vfio_user_capabilities *capabilities)
{
    json_t *root;
    const json_t *object;

    *capabilities = (struct vfio_user_capabilities){
        .max_msg_fds = 1,
        .max_data_xfer_size = 1048576,
        .pgsizes = 4096,
    };
    size = strnlen((const char *)text, size);
    if (size == 0) {
        return 0;
    }
    if (size > TEXT_MAX) {
        return -EINVAL;
    }
    root = json_loadb((const char *)text, size, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return -EINVAL;
    }
    object = json_object_get(root, "capabilities");
    get_number(object, "max_msg_fds", &capabilities->max_msg_fds);
    get_number(object, "max_data_xfer_size", &capabilities->max_data_xfer_size);
    get_number(object, "pgsizes", &capabilities->pgsizes);
    capabilities->twin_socket =
        json_is_true(json_object_get(json_object_get(object, "twin_socket"), "supported"));
    json_decref(root);
    return 0;
}

size_t vfio_user_capabilities_text(char text[VFIO_USER_CAPABILITIES_ROOM], unsigned maps_max,
                                   bool twin_socket)
{
    int size = snprintf(text, VFIO_USER_CAPABILITIES_ROOM,
                        "{\"capabilities\":{\"max_msg_fds\":%d,\"max_data_xfer_size\":%d,"
                        "\"pgsizes\":%d,\"max_dma_maps\":%u%s}}",
                        VFIO_USER_MAX_FDS, VFIO_USER_MAX_DATA, VFIO_USER_PAGE_SIZES, maps_max,
                        twin_socket ? ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}" : "");

    return (size_t)size + 1;
}
