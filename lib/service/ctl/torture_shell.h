/*
 * Torture shell: runs the commands of a faults file, each bounded in time.
 */
#ifndef TALLY_SERVICE_CTL_TORTURE_SHELL_H
#define TALLY_SERVICE_CTL_TORTURE_SHELL_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

/* Runs `command` by /bin/sh in a process group of its own, so that the terminal's Ctrl-C does not
 * reach it, with nothing on its input and none of our descriptors; waits for its end, not for what
 * it leaves running. After `timeout_ms` the group is killed. The end of what it printed is kept in
 * `output` (terminated; may be NULL). INTERNAL with the exit code and the last line printed where
 * it is not 0, REQUEST_TIMEOUT, NO_MEMORY. */
enum tally_status tally_shell_run(const char *command, int64_t timeout_ms, char *output,
                                  size_t output_bytes, struct tally_error *error) TALLY_MUST_CHECK;

#endif
