#include "trace/neuron_values.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "rometrace/trace/patch.hpp"
#include "trace/corruption.hpp"

namespace rometrace {
// TEMPORARY: whole-model autograd
NeuronValues neuron_values(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options,
                           const CleanRun& clean, const RunControl&) {
  const auto positions = positions_of(options.neurons->positions, prompt);
  const auto layers = layers_of(*options.neurons, model.config());
  const Corruption corruption(model, options.corruption, prompt.subject_range, prompt.counter_ids, 0, options.samples);
  const bool noising = options.direction == Direction::kNoising;
  std::vector<at::Tensor> hidden, clean_hidden, derivative;
  const auto run = [&](std::int64_t rows, bool corrupt, std::vector<at::Tensor>& out) {
    const auto h = model.forward(clean.token_ids, rows, [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (site == Site::kEmbedding && corrupt) corruption.apply(value);
      if (site == Site::kEmbedding) value.requires_grad_();
      if (site == Site::kMlpHidden && layers.contains(layer)) out.push_back(value);
    });
    return h;
  };
  const at::AutoGradMode with(true);
  std::vector<at::Tensor> c, k;
  const auto hc = run(options.samples, true, c);
  const auto hk = run(1, false, k);
  const auto h = noising ? hk : hc;
  const auto& ids = clean.trace.answer_ids;
  const auto answer = at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())).view({1, -1, 1});
  const auto logits = model.logits(h.slice(1, clean.trace.tokens - 1));
  const auto lp =
      at::log_softmax(logits, -1, at::kDouble).gather(2, answer.expand({logits.size(0), -1, 1})).sum({1, 2});
  const auto g = torch::autograd::grad({lp.exp().sum()}, noising ? k : c);
  const at::NoGradGuard no_grad;
  NeuronValues v;
  std::vector<at::Tensor> e, cl, co, ch;
  for (std::size_t p = 0; p < positions.size(); ++p) {
    std::vector<at::Tensor> ee, ccl, cco, cch;
    for (std::size_t l = 0; l < c.size(); ++l) {
      const auto x = c[l].detach().select(1, positions[p]).to(at::kDouble),
                 y = k[l].detach().select(1, positions[p]).to(at::kDouble);
      ee.push_back(((y - x) * g[l].select(1, positions[p]).to(at::kDouble)).mean(0));
      ccl.push_back(y.mean(0));
      cco.push_back(x.mean(0));
      cch.push_back((y - x).abs().mean(0));
    }
    e.push_back(at::stack(ee));
    cl.push_back(at::stack(ccl));
    co.push_back(at::stack(cco));
    ch.push_back(at::stack(cch));
  }
  if (options.neurons->given.empty() && options.neurons->ranking.which != NeuronRule::Which::kNone)
    v.estimates = at::stack(e);
  v.clean = at::stack(cl);
  v.corrupted = at::stack(co);
  v.change = at::stack(ch);
  return v;
}
}  // namespace rometrace
