"""The journal of facts: appended, read, recovered, verified; and the limits reserved with it."""
