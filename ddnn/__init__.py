"""What every tier of a distributed deep neural network shares."""
