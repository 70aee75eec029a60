"""What ../fuzz is made of: the plan, the VM, its monitors, the invariants."""
