"""From video files to official records: models of pictures and sound, PCA, quantizing, the job."""
