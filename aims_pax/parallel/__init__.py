"""Work beside the driver: training and dynamics in processes of their own, and the cores they get."""
