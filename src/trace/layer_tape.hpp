#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "rometrace/model/decoder.hpp"

namespace rometrace {

/// What a layer makes of rows that enter it, differentiably.
using LayerRun =
    std::function<at::Tensor(std::shared_ptr<const Block> block, const at::Tensor& input, std::int64_t layer)>;

/// Layers run one after another, then differentiated one at a time downwards. Between two of them only the recorded
/// inputs are kept or each layer's graph too, with which it is not run a second time; without, a model whose layers are
/// streamed holds no more of them than in a forward.
class LayerTape {
 public:
  enum class Graphs { kKept, kMadeAgain };

  LayerTape(const Decoder& model, Graphs graphs) : model_(model), graphs_(graphs) {}

  /// The layer's output of `input`, without a graph to what was before.
  at::Tensor run(std::int64_t layer, const at::Tensor& input, LayerRun run) {
    Entry entry{layer, input.detach(), {}, std::move(run)};
    at::Tensor output;
    if (graphs_ == Graphs::kKept) {
      output = entry.output = differentiably(entry);
    } else {
      const at::NoGradGuard no_grad;
      output = entry.run(model_.block(layer), entry.input, layer);
    }
    entries_.push_back(std::move(entry));
    return output.detach();
  }

  /// The derivative by the first layer's input, of what has this derivative by the last one's output. Once.
  at::Tensor backward(at::Tensor derivative) {
    while (!entries_.empty()) {
      auto entry = std::move(entries_.back());
      entries_.pop_back();
      const auto output = entry.output.defined() ? entry.output : differentiably(entry);
      derivative = torch::autograd::grad({output}, {entry.input}, {derivative}).front();
    }
    return derivative;
  }

 private:
  struct Entry {
    std::int64_t layer;
    at::Tensor input, output;
    LayerRun run;
  };

  at::Tensor differentiably(Entry& entry) const {
    const at::AutoGradMode with_gradients(true);
    entry.input.requires_grad_();
    return entry.run(model_.block(entry.layer), entry.input, entry.layer);
  }

  const Decoder& model_;
  Graphs graphs_;
  std::vector<Entry> entries_;
};

}  // namespace rometrace
