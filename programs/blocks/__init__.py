"""What programs and guides are built of: networks, distributions, flows, rendering, boxes, segments."""
