"""A build as one page of HTML: what took how long, what waited for what, what was not remembered and why.

`recording` collects a build's events, `page` is a pure function from what was collected to text. `build --report` calls
both. The page loads nothing and needs no network: everything in it is escaped text.
"""
