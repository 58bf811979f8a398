"""What leaves a run: exports for trainers, files and jobs at fine-tuning APIs, repositories on a hub."""
