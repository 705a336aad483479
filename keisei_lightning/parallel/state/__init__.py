"""What a collection counts, and what it resumes from: of one collector, and of several learners together."""
