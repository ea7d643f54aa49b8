#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "rometrace/model/config.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// Positions [begin, end).
struct PositionRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  auto operator<=>(const PositionRange&) const = default;
};

/// Neurons of some layers in an order, of which sets are the first ones.
struct NeuronOrder {
  LayerRange layers;
  at::Tensor ranks;  ///< [layers, F], int32, on the CPU: each neuron's place in the order, from 0
};

/// One thing that a patched run has otherwise than the run that it is made from (its base: the corrupted run or, when
/// noising and for knockouts, the clean one).
struct Change {
  enum class Source {
    kOther,  ///< the output of the other run: clean values for a corrupted base, and the reverse
    kBase,   ///< the output that the base run has there, whatever else is patched
    kCut,    ///< no output: the attention (kMixed) does not see the positions `cut`
  };

  Site site = Site::kState;
  LayerRange layers;
  Source source = Source::kOther;
  std::optional<std::int64_t> head = {};  ///< with kMixed: this head's slice only
  PositionRange cut = {};
  std::optional<std::int64_t> neuron = {};  ///< with kMlpHidden: this coordinate only
  const NeuronOrder* order = nullptr;       ///< or the first `count` of these, as far as they are of the layer at hand
  std::int64_t count = 0;

  auto operator<=>(const Change&) const = default;
};

/// What a patched run changes: the one description that all kinds share and all engines read. Changes are made at
/// `position` and those with Source::kCut at all later ones, too.
struct Patch {
  std::int64_t position = 0;
  std::vector<Change> changes;            ///< the first one begins in the lowest layer
  bool of_clean_run = false;              ///< the base is the clean run, whatever the direction; no draws, then
  std::optional<std::int64_t> fact = {};  ///< the only one of a shared sweep's facts that has this patch; none: all

  auto operator<=>(const Patch&) const = default;
};

/// Which of a layer's F neurons a change is of: bool [F], on the CPU.
at::Tensor neurons_of(const Change& change, std::int64_t layer, std::int64_t F);

/// The sites whose outputs of the other run these kinds need.
std::vector<Site> sites_of(const std::vector<Kind>& kinds);

/// The sites at which these kinds hold outputs at those of the base run.
std::vector<Site> severed_sites(const std::vector<Kind>& kinds);

/// The rule's positions of a prompt, ascending. Throws Error if a listed one is not in the prompt.
std::vector<std::int64_t> positions_of(const PositionRule& rule, const TracePrompt& prompt);

/// The layers whose neurons are traced. Throws Error if the model lacks one of them, or a neuron that is asked for.
LayerRange layers_of(const NeuronOptions& options, const DecoderConfig& config);

/// Where a cell's score stands: of `grid` (a place in TraceOptions::kinds), `index` in its scores; or, where it is no
/// cell but a run of neurons, which of these it is.
struct Cell {
  static constexpr auto kNeurons = static_cast<std::size_t>(-1);  ///< `grid` of these

  std::size_t grid = 0;
  std::size_t index = 0;
  Patch patch;
};

/// All cells that have to be run, in the order of the grids: those before the first corrupted position are what the
/// base run is there, as no noise reaches them. Throws Error if a listed position is not in the prompt.
std::vector<Cell> cells_of(const TracePrompt& prompt, const TraceOptions& options, const DecoderConfig& config);

/// The grid of a kind with the base run's numbers in it, of a trace whose numbers are known but for its grids. Throws
/// Error like cells_of().
CausalGrid empty_grid(Kind kind, const TracePrompt& prompt, const TraceOptions& options, const DecoderConfig& config,
                      const Trace& trace);

}  // namespace rometrace
