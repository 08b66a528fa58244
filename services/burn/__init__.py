"""`gpumon burn`: a load with idle, cool-down, tags and memos around it, and what it did to the temperature."""
