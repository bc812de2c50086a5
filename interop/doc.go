// Package interop has no code but tests: of beequeue against Node's bee-queue,
// both at work on the same queues of a real Redis server. See README.md.
package interop
