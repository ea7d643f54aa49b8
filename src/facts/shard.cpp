#include "rometrace/facts/shard.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

constexpr const char* kInstead = "; give --shard I/N instead";

struct Launcher {
  const char* name;
  const char* rank;
  const char* size;
  const char* mark;  ///< must be set as well; null: nothing more
};

constexpr std::array kLaunchers = {
    Launcher{"torchrun", "RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"},
    Launcher{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", nullptr},
    Launcher{"PMI", "PMI_RANK", "PMI_SIZE", nullptr},
    Launcher{"Slurm", "SLURM_PROCID", "SLURM_NTASKS", nullptr},
    Launcher{"the environment", "RANK", "WORLD_SIZE", nullptr},
};

/// A variable that tells the rank among the processes of a machine.
struct LocalVariable {
  const char* name;
  const char* mark;  ///< must be set as well; null: nothing more
};

constexpr std::array kLocalVariables = {
    LocalVariable{"LOCAL_RANK", "TORCHELASTIC_RUN_ID"},
    LocalVariable{"OMPI_COMM_WORLD_LOCAL_RANK", nullptr},
    LocalVariable{"MPI_LOCALRANKID", nullptr},
    LocalVariable{"MV2_COMM_WORLD_LOCAL_RANK", nullptr},
    LocalVariable{"PMI_LOCAL_RANK", nullptr},
    LocalVariable{"SLURM_LOCALID", nullptr},
    LocalVariable{"LOCAL_RANK", nullptr},
};

constexpr std::int64_t kLargest = 1'000'000'000'000;  // no sum or difference below overflows

std::optional<std::int64_t> parse_number(std::string_view text) {
  std::int64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  if (number < 0 || number > kLargest) return std::nullopt;
  return number;
}

/// The value of a variable; nothing if it is unset or empty.
std::optional<std::string> value_of(const Environment& environment, const char* name) {
  const char* value = environment(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

std::optional<std::int64_t> number_of(const Environment& environment, const char* name) {
  const auto value = value_of(environment, name);
  if (!value) return std::nullopt;
  const auto number = parse_number(*value);
  if (!number) {
    throw Error("--shard auto: " + std::string(name) + " is " + in_quotes(*value) + "; expected a number" + kInstead);
  }
  return number;
}

ShardFound found(std::int64_t rank, std::int64_t size, const std::string& source) {
  return {{rank + 1, size}, source};
}

/// srun gives each step its id; the step that runs the job's own script has none, or one near the type's end.
bool is_batch_script(const Environment& environment) {
  constexpr std::int64_t kFirstSpecialStep = 0xFFFFFFF0;
  if (!value_of(environment, "SLURM_JOB_ID")) return false;
  const auto step = value_of(environment, "SLURM_STEP_ID");
  if (!step) return true;
  const auto number = parse_number(*step);
  return !number || *number >= kFirstSpecialStep;
}

std::optional<ShardFound> from_launcher(const Environment& environment, const Launcher& launcher) {
  if (launcher.mark != nullptr && !value_of(environment, launcher.mark)) return std::nullopt;
  const auto rank = number_of(environment, launcher.rank);
  const auto size = number_of(environment, launcher.size);
  // An allocation's shell knows how many tasks there could be, but is none of them.
  const bool in_allocation = std::string_view(launcher.name) == "Slurm" && !rank;
  if ((!rank && !size) || in_allocation) return std::nullopt;
  if (!rank || !size) {
    throw Error("--shard auto: " + std::string(rank ? launcher.rank : launcher.size) + " is set and " +
                (rank ? launcher.size : launcher.rank) + " is not; expected both" + kInstead);
  }
  if (*rank >= *size) {
    throw Error("--shard auto: " + std::string(launcher.rank) + " is " + std::to_string(*rank) + " and " +
                launcher.size + " is " + std::to_string(*size) + "; expected a rank from 0 to one less than the size" +
                kInstead);
  }
  return found(*rank, *size,
               std::string(launcher.name) + " (" + launcher.rank + " " + std::to_string(*rank) + " of " +
                   std::to_string(*size) + ")");
}

std::optional<ShardFound> from_array(const Environment& environment) {
  const auto id = number_of(environment, "SLURM_ARRAY_TASK_ID");
  if (!id) return std::nullopt;
  const auto first = number_of(environment, "SLURM_ARRAY_TASK_MIN");
  const auto last = number_of(environment, "SLURM_ARRAY_TASK_MAX");
  if (!first || !last) {
    throw Error(
        "--shard auto: SLURM_ARRAY_TASK_ID is set and SLURM_ARRAY_TASK_MIN or SLURM_ARRAY_TASK_MAX is not; expected "
        "all three" +
        std::string(kInstead));
  }
  const std::int64_t count = number_of(environment, "SLURM_ARRAY_TASK_COUNT").value_or(*last - *first + 1);
  const std::int64_t between = *last - *first;
  const bool even = count == 1 ? between == 0 : count > 1 && between >= count - 1 && between % (count - 1) == 0;
  const std::int64_t step = even && count > 1 ? between / (count - 1) : 1;  // --array=1-8:3 is 1, 4, 7
  if (!even || *id < *first || *id > *last || (*id - *first) % step != 0) {
    throw Error("--shard auto: SLURM_ARRAY_TASK_ID is " + std::to_string(*id) + " of " + std::to_string(count) +
                " tasks from " + std::to_string(*first) + " to " + std::to_string(*last) +
                "; expected evenly spaced ids, such as --array=1-" + std::to_string(std::max<std::int64_t>(count, 2)) +
                kInstead);
  }
  return found((*id - *first) / step, count,
               "Slurm array (SLURM_ARRAY_TASK_ID " + std::to_string(*id) + " of " + std::to_string(*first) + " to " +
                   std::to_string(*last) + ")");
}

}  // namespace

std::optional<LocalRank> local_rank_from_environment(const Environment& environment) {
  for (const auto& [name, mark] : kLocalVariables) {
    const auto value = value_of(environment, name);
    if (!value || (mark != nullptr && !value_of(environment, mark))) continue;
    if (std::string_view(name) == "SLURM_LOCALID" && is_batch_script(environment)) continue;
    if (const auto rank = parse_number(*value)) return LocalRank{*rank, name};
    throw Error("--device cuda: " + std::string(name) + " is " + in_quotes(*value) +
                "; expected a number, this process's among those of its machine; give --device cuda:<i> instead");
  }
  return std::nullopt;
}

std::string to_string(const Shard& shard) {
  return std::to_string(shard.index) + "/" + std::to_string(shard.count);
}

Shard parse_shard(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos) {
    const auto index = parse_number(text.substr(0, slash));
    const auto count = parse_number(text.substr(slash + 1));
    if (index && count && *index >= 1 && *index <= *count) return {*index, *count};
  }
  throw Error("--shard: " + in_quotes(text) + "; expected I/N with I from 1 to N, such as 1/4, or auto");
}

ShardFound shard_from_environment(const Environment& environment) {
  std::optional<ShardFound> launched;
  for (const Launcher& launcher : kLaunchers) {
    launched = from_launcher(environment, launcher);
    if (!launched) continue;
    const bool is_slurm = std::string_view(launcher.name) == "Slurm";
    if (is_slurm && launched->shard.index == 1 && launched->shard.count > 1 && is_batch_script(environment)) {
      throw Error("--shard auto: this is the script of a Slurm job of " + std::to_string(launched->shard.count) +
                  " tasks, not one of its tasks; start rometrace by srun, or give --shard I/N instead");
    }
    break;
  }
  if (launched && launched->shard.count > 1) return *launched;
  if (const auto array = from_array(environment)) return *array;
  if (launched) return *launched;
  throw Error(
      "--shard auto: no rank in the environment (of torchrun, Open MPI, PMI or Slurm); start rometrace by srun, mpirun "
      "or torchrun" +
      std::string(", or give --shard I/N instead"));
}

}  // namespace rometrace
