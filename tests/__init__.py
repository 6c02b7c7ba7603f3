"""Tests: unit, props, sim (virtual clock), store, net (loopback), portal, arch, install."""
