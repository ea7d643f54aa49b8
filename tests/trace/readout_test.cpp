#include "trace/readout.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randn.h>

#include <random>

#include "checks.hpp"
#include "closeness.hpp"
#include "random_model.hpp"

namespace rometrace::readout_test {
namespace {

using testing::Closeness;
using testing::TemporaryFolder;

TEST_CASE("the head is read slice by slice as it is from all logits") {
  const at::NoGradGuard no_grad;
  std::mt19937 engine(1);
  const TemporaryFolder folder;
  write_random_model(folder, {.layers = 1, .width = 4, .heads = 1, .vocab = 20000}, engine);
  const std::vector<Reading> readings = {
      {Measure::kLogProbability, 0}, {Measure::kLogit, 0}, {Measure::kLogitDifference, 0},
      {Measure::kRank, 0},           {Measure::kKl, 0},    {Measure::kProbability, 1}};
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto model = Decoder::load(folder.path(), dtype);
    REQUIRE(model->head().parts() > 2);
    // More rows than a chunk; the first and last tokens of slices.
    const auto hidden = 10 * at::randn({700, 2, 4}, dtype);
    std::vector<Question> questions(3);
    questions[0].answer = {0, 8191};
    questions[1].answer = {8192, 16383};
    questions[2].answer = {16384, 19999};
    for (auto& question : questions) {
      question.other_targets = {19999};
      question.foil = 8192;
      question.clean_log_probabilities = at::log_softmax(at::randn({20000}, at::kDouble), -1);
    }
    std::vector<std::int64_t> question_of;
    for (std::int64_t i = 0; i < 700; ++i) question_of.push_back(i % 3);
    const auto found = read_out(*model, hidden, questions, question_of, readings);
    REQUIRE(found.size() == 700 * 7);
    // The logits are the same; what differs is the rounding of the sum of 20000 exponentials.
    Closeness closeness(dtype == at::kFloat ? testing::Tolerance{5e-6, 1e-30} : testing::Tolerance{1e-11, 1e-30});
    for (std::size_t i = 0; i < 700; ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const auto expected = read_logits(model->logits(hidden.slice(0, row, row + 1)),
                                        questions[static_cast<std::size_t>(question_of[i])], readings);
      for (std::size_t c = 0; c < 7; ++c) {
        closeness.compare("row " + std::to_string(i) + ", column " + std::to_string(c), found[7 * i + c], expected[c]);
      }
    }
    closeness.check();
  }
}

}  // namespace
}  // namespace rometrace::readout_test
