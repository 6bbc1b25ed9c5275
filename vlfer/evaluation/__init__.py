"""Measuring: data sets become a `Manifest`, a manifest becomes predictions, predictions become the field's figures."""
