/*
 * Port: one for a server of a test's own.
 */
#ifndef TALLY_TESTS_PORT_H
#define TALLY_TESTS_PORT_H

/* Any one below those that the kernel gives to outgoing connections, none of which can take it
 * between this call and the bind. Another server can: whoever binds it tries again with the next.
 */
int test_port_choose(void);

#endif
