"""Theory as functions of numbers, to be imported from the modules, e.g. `bmsdp.theory.rank`."""
