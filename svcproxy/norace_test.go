//go:build !race

package svcproxy

const raceEnabled = false
