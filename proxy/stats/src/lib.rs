//! Counters, gauges and histograms: single-writer cells, names, tags and their text forms.
