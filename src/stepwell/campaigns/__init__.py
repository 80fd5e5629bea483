"""Campaigns: named stages, each from an input folder to an output folder, stopped and resumed without paying twice."""
