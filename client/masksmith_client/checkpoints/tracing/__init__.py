"""Find the layout of each tensor of a checkpoint by running the model once, on the meta device if that is possible.

An example: GPT-2 stores `c_fc.weight` as `[in, out]` and computes `addmm(bias, x, weight)`. The watcher sees the
parameter as the right operand of `addmm`. The dimensions of a right operand are (`in`, `out`), so this is the layout of
the parameter, whatever its name or shape suggest.

- `models` builds the model from its config, without weights; `inputs` makes arguments for it; `passes` runs it. If it
  cannot run on the meta device, `smaller` shrinks its config, so that it can run on the CPU.
- `watcher` sees every operation; `sources` follows views and copies back to parameters; `axis_roles` combines the
  products of a parameter.
- `outputs` finds fused matrices (query, key and value) by the parts into which their outputs are split.
- `observations` holds the results, and extends them to parameters with similar names; `layer_classes` adds those that
  the classes of layers show.
- `correspondence` maps parameters to the tensors of the file, which may be renamed, stacked or transposed.
"""
