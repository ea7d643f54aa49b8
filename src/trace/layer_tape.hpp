#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
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

  /// A value inside a layer, and the derivative by it of what backward() differentiates.
  struct Marked {
    Site site;
    at::Tensor value, derivative;  // of one shape
  };
  /// Told of a layer what its run marked, in that order; layers come downwards.
  using Visit = std::function<void(std::int64_t layer, std::span<const Marked> values)>;

  LayerTape(const Decoder& model, Graphs graphs) : model_(model), graphs_(graphs) {}

  /// The layer's output of `input`, without a graph to what was before.
  at::Tensor run(std::int64_t layer, const at::Tensor& input, LayerRun run) {
    Entry entry{layer, input.detach(), {}, {}, std::move(run)};
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

  /// Called by a LayerRun: backward() shall tell of this value, on which the layer's output depends. Where graphs are
  /// made again the layer is run twice, and the first run's values are forgotten.
  void mark(Site site, const at::Tensor& value) {
    if (marks_ != nullptr) marks_->push_back({site, value, {}});
  }

  /// The derivative by the first layer's input, of what has this derivative by the last one's output. Once.
  at::Tensor backward(at::Tensor derivative, const Visit& visit = {}) {
    while (!entries_.empty()) {
      auto entry = std::move(entries_.back());
      entries_.pop_back();
      const auto output = entry.output.defined() ? std::move(entry.output) : differentiably(entry);
      std::vector<at::Tensor> by = {entry.input};
      for (const auto& marked : entry.marked) by.push_back(marked.value);
      const auto derivatives = torch::autograd::grad({output}, by, {derivative});
      derivative = derivatives.front();
      if (!visit) continue;
      for (std::size_t i = 0; i < entry.marked.size(); ++i) {
        entry.marked[i].value = entry.marked[i].value.detach();
        entry.marked[i].derivative = derivatives[i + 1];
      }
      visit(entry.layer, entry.marked);
    }
    return derivative;
  }

 private:
  struct Entry {
    std::int64_t layer;
    at::Tensor input, output;
    std::vector<Marked> marked;
    LayerRun run;
  };

  at::Tensor differentiably(Entry& entry) {
    const at::AutoGradMode with_gradients(true);
    entry.input.requires_grad_();
    marks_ = &entry.marked;
    auto output = entry.run(model_.block(entry.layer), entry.input, entry.layer);
    marks_ = nullptr;
    return output;
  }

  const Decoder& model_;
  Graphs graphs_;
  std::vector<Entry> entries_;
  std::vector<Marked>* marks_ = nullptr;  // where a run's values go; none: nowhere
};

}  // namespace rometrace
