"""The paper's tables beside ours, from result files."""
