"""The formats that weights are stored in: each read into `Weights`, and some written."""
