"""Other packages' ways of stating problems, in and out (floor L8). Each module needs its own optional package."""
