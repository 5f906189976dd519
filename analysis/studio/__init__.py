"""A page in which one looks at a scene, changes it by hand, and sees what the program says to it.

    python -m analysis.studio [RUN …] [--port P] [--no-browser]

opens the page in a browser, and ``analysis.studio.widget.Studio(run)`` shows the same in a notebook. It loads
nothing from the network and listens on this machine alone.

=============  ======================================================================
`latents`      a scene as the values of a program's sites: replayed, copied, fitted to a pose
`state`        the hand (latents and edits), its history, the clipboard
`actions`      what a hand does to a scene: a table of functions by name
`dreams`       scenes of the prior under conditions
`asking`       questions about an image: draws of the posterior, a better scene, another run
`views`        what the page shows, as JSON
`files`        scenes saved and opened
`desk`         messages of the page, answered
`server`       the page over HTTP; `widget`: the same in a notebook
=============  ======================================================================

Lengths are in the image frame (the image's side is 2, y points down), log-probabilities in nats.
"""
