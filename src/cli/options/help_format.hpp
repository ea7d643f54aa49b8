#pragma once

#include <string>

namespace CLI {
class App;
}  // namespace CLI

namespace rometrace::cli {

/// The groups of options in help, by what people do, each with the page that tells the rest.
namespace groups {
inline constexpr const char* kWhat = "What to trace (docs/method.md)";
inline constexpr const char* kRead = "What to read (docs/study.md)";
inline constexpr const char* kModel = "Model (docs/models.md)";
inline constexpr const char* kMethod = "Method: what is restored (docs/method.md)";
inline constexpr const char* kNeurons = "Neurons, with --kinds neuron (docs/neurons.md)";
inline constexpr const char* kCorruption = "Corruption and noise (docs/noise.md)";
inline constexpr const char* kAnswers = "Answers and measures (docs/method.md)";
inline constexpr const char* kFacts = "Many facts, with --facts (docs/study.md)";
inline constexpr const char* kRecorded = "Settings of a result (docs/results.md)";
inline constexpr const char* kAverages = "Averages (docs/study.md)";
inline constexpr const char* kFactors = "Noise to try (docs/noise.md)";
inline constexpr const char* kFact = "What to edit (docs/editing.md)";
inline constexpr const char* kEditing = "How to edit (docs/editing.md)";
inline constexpr const char* kMoments = "Second moment of keys (docs/editing.md)";
inline constexpr const char* kExport = "What to write (docs/results.md)";
inline constexpr const char* kOutput = "Output (docs/formats.md)";
inline constexpr const char* kRunning = "Running (docs/performance.md)";
}  // namespace groups

/// Adds --help to `app`, whose other options are there already, behind the last of them. Help is at most 80 columns
/// wide, wherever it is written: description, usage, options by group in the order in which groups were begun,
/// commands, and `footer`, whose lines are wrapped too. An option's default stands in brackets behind its description.
void add_help(CLI::App& app, std::string footer);

}  // namespace rometrace::cli
