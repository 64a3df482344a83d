"""What a run is: its folder, its model, and the rows that it reads."""
