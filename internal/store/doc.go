// Package store is all that speaks to Redis: the keys of a queue, the scripts that
// change them, and how a call is made so that a lost reply does no harm. It knows
// nothing of jobs beyond their ids and records.
package store
