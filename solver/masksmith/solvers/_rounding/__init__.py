"""From a relaxed or partial mask to an allowed one: transport plans, repair, exchanges, panels through torch."""
