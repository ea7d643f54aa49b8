#include "trace/answer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>

#include <random>

#include "checks.hpp"
#include "closeness.hpp"
#include "random_model.hpp"

namespace rometrace {
namespace {

using testing::Closeness;
using testing::TemporaryFolder;

TEST_CASE("an answer's probability is the softmax's, over a vocabulary of several slices and more rows than a chunk") {
  const at::NoGradGuard no_grad;
  std::mt19937 engine(1);
  const TemporaryFolder folder;
  write_random_model(folder, {.layers = 1, .width = 4, .heads = 1, .vocab = 20000}, engine);
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto model = Gpt2::load(folder.path(), dtype);
    REQUIRE(model->head().parts() > 2);
    const auto hidden = 10 * at::randn({700, 4}, dtype);
    const auto probabilities = at::softmax(model->logits(hidden), -1, at::kDouble).contiguous();
    const std::vector<std::int32_t> first_and_last_of_slices = {0, 8191, 8192, 16383, 16384, 19999};
    std::vector<std::int32_t> answers;  // of each row another one
    for (std::size_t i = 0; i < 700; ++i) answers.push_back(first_and_last_of_slices[i % 6]);
    const auto found = answer_probabilities(*model, hidden, answers);
    REQUIRE(found.size() == 700);
    // The logits are the same; what differs is the rounding of the sum of 20000 exponentials.
    Closeness closeness(dtype == at::kFloat ? testing::Tolerance{2e-6, 1e-30} : testing::Tolerance{1e-12, 1e-30});
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto expected = probabilities.const_data_ptr<double>() + i * 20000 + answers[i];
      closeness.compare("row " + std::to_string(i), found[i], *expected);
    }
    closeness.check();
  }
}

}  // namespace
}  // namespace rometrace
