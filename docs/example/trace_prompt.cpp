// Prints by how much each state, when restored, raises the probability of the answer: a line a token, a column a layer.
#include <array>
#include <cstdio>
#include <exception>

#include "rometrace/model/decoder.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/sweep.hpp"

int main(int argc, char** argv) try {
  if (argc != 4) return std::fputs("usage: trace_prompt MODEL_FOLDER PROMPT SUBJECT\n", stderr), 2;
  const auto tokenizer = rometrace::Tokenizer::load(argv[1]);
  const auto model = rometrace::Decoder::load(argv[1]);

  rometrace::TracePrompt prompt{.prompt = argv[2], .subject = argv[3]};
  const auto tokens = tokenizer.encode_prompt(prompt.prompt);
  for (const auto& token : tokens) prompt.token_ids.push_back(token.id);
  prompt.subject_range = rometrace::find_subject(tokens, prompt.prompt, prompt.subject);

  rometrace::TraceOptions options;
  options.kinds = {rometrace::Kind::kState};
  options.corruption.sigma = 0.25;  // of the noise on the subject's embeddings
  const auto clean = rometrace::run_clean(*model, prompt, options);
  const auto trace = rometrace::trace_sweep(*model, prompt, options, clean).trace;

  std::printf("answer \"%s\": %.6f, with the subject corrupted %.6f\n", tokenizer.decode(trace.answer_ids).c_str(),
              trace.high_score, trace.low_score);
  const auto& grid = trace.grids.front();
  for (std::size_t cell = 0; cell < grid.scores.size(); ++cell) {
    const bool last = (cell + 1) % static_cast<std::size_t>(trace.layers) == 0;
    std::printf("%10.6f%s", grid.scores[cell] - trace.low_score, last ? "\n" : "");
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "trace_prompt: %s\n", error.what());
  return 2;
}
