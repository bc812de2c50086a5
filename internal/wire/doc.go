// Package wire has the formats that Node's Bee-Queue and beequeue share: job
// records, events, and times in milliseconds. It depends on the standard library
// alone, and knows neither Redis nor the types that users see.
//
// Whatever it reads may have been written by anybody. So every decoder checks
// what it reads, and has a fuzz target.
package wire
