"""What is wrong with a training run: findings, the rules that make them, and what causes what."""
