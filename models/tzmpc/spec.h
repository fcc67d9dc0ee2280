/* SPDX-License-Identifier: BSD-2-Clause */
/* The registers of the MPC, by their offsets, and their bits. */
#ifndef VIOMMU_TZMPC_SPEC_H
#define VIOMMU_TZMPC_SPEC_H

enum {
    MPC_CTRL = 0x00,
    MPC_BLK_MAX = 0x10,
    MPC_BLK_CFG = 0x14,
    MPC_BLK_IDX = 0x18,
    MPC_BLK_LUT = 0x1c,
    MPC_INT_STAT = 0x20,
    MPC_INT_CLEAR = 0x24,
    MPC_INT_EN = 0x28,
    MPC_INT_INFO1 = 0x2c,
    MPC_INT_INFO2 = 0x30,
    MPC_INT_SET = 0x34,
    MPC_ID_FIRST = 0xfd0, /* PIDR4 to PIDR7, PIDR0 to PIDR3, CIDR0 to CIDR3 */
    MPC_SIZE = 0x1000,
};

#define MPC_CTRL_SEC_RESP (1u << 4) /* a blocked access gets an error */
#define MPC_CTRL_GATE_REQ (1u << 6)
#define MPC_CTRL_GATE_ACK (1u << 7)
#define MPC_CTRL_AUTOINC (1u << 8)
#define MPC_CTRL_LOCKDOWN (1u << 31)
#define MPC_CTRL_WRITABLE \
    (MPC_CTRL_SEC_RESP | MPC_CTRL_GATE_REQ | MPC_CTRL_AUTOINC | MPC_CTRL_LOCKDOWN)
#define MPC_CTRL_RESET MPC_CTRL_AUTOINC

#define MPC_IRQ 1u
#define MPC_INFO2_HNONSEC (1u << 16)
#define MPC_INFO2_CFG_NS (1u << 17)
#define MPC_INFO2_ALL 0x3ffffu

#define MPC_BLOCK_BITS_MIN 5u /* BLK_CFG 0 */
#define MPC_BLOCK_BITS_MAX 20u
#define MPC_WORDS_MAX (1u << 20)

#endif
