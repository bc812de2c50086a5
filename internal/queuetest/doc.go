// Package queuetest has what the tests of queues share. Only tests may import it.
//
// [Main] runs the tests of a package. [Each] runs a test on miniredis, one redis-server, one
// node of a cluster, and a cluster; [Open] gives it a queue, whose keys are checked when
// the test is over. [Within] and [Calm] repeat checks that depend on the machine's speed.
package queuetest
