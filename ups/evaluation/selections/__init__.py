"""One forecast of scored candidates, one file per way.

Each has `options(settings)`, values of its parameter, of which the validation split takes the best (None: it has none),
`selected(scored, settings, option)`, the forecast [n, t, Q, C] in the units of `Scored`, and `span(settings, leads)`: how many
leads in a row come from one candidate. The controls choose at random, and by the true error, for as many.
"""
