"""Processes of a stage: started, watched, ended in order, and judged by the files that they leave."""
