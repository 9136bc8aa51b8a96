"""Tables and figures, each written by a notebook, which papermill executes; and the verdict on the paper's claims."""


rule table1:
    input:
        notebook="notebooks/table1.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "table1", "accuracy.csv"),
        benchmark=lambda wildcards: benchmark_files(wildcards, "table1"),
    output:
        tables=multiext("{root}/table1", ".csv", ".md", ".tex"),
        page=in_report("{root}/notebooks/table1.html", "Tables", "Table 1"),
    log:
        executed="{root}/notebooks/table1.ipynb",
        text="{root}/logs/table1.log",
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "Table 1 of {wildcards.root}."
    shell:
        "python -m sdnet notebook {input.notebook} --results {wildcards.root} --out {wildcards.root}/notebooks"
        " > {log.text} 2>&1"


use rule table1 as table2 with:
    input:
        notebook="notebooks/table2.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "table2", "accuracy.csv"),
        sweep=lambda wildcards: noise_files(wildcards, "table2", "sweep"),
        adaptive=lambda wildcards: noise_files(wildcards, "table2", "adaptive"),
    output:
        tables=multiext("{root}/table2", ".csv", ".md", ".tex"),
        page=in_report("{root}/notebooks/table2.html", "Tables", "Table 2"),
    log:
        executed="{root}/notebooks/table2.ipynb",
        text="{root}/logs/table2.log",
    message:
        "Table 2 of {wildcards.root}."


use rule table1 as table3 with:
    input:
        notebook="notebooks/table3.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "table3", "accuracy.csv"),
        sweep=lambda wildcards: noise_files(wildcards, "table3", "sweep"),
        adaptive=lambda wildcards: noise_files(wildcards, "table3", "adaptive"),
    output:
        tables=multiext("{root}/table3", ".csv", ".md", ".tex"),
        page=in_report("{root}/notebooks/table3.html", "Tables", "Table 3"),
    log:
        executed="{root}/notebooks/table3.ipynb",
        text="{root}/logs/table3.log",
    message:
        "Table 3 of {wildcards.root}."


use rule table1 as table4 with:
    input:
        notebook="notebooks/table4.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "table4", "accuracy.csv"),
        as_paper=lambda wildcards: run_files(wildcards, "table4", "attack-paper.csv"),
        adaptive=lambda wildcards: run_files(wildcards, "table4", "attack-adaptive.csv"),
        checks=lambda wildcards: run_files(wildcards, "table4", "diagnostics.csv"),
    output:
        tables=multiext("{root}/table4", ".csv", ".md", ".tex"),
        checks=multiext("{root}/diagnostics", ".csv", ".md", ".tex"),
        page=in_report("{root}/notebooks/table4.html", "Tables", "Table 4"),
    log:
        executed="{root}/notebooks/table4.ipynb",
        text="{root}/logs/table4.log",
    message:
        "Table 4 of {wildcards.root}."


use rule table1 as table5 with:
    input:
        notebook="notebooks/table5.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "table5", "accuracy.csv"),
        adaptive=lambda wildcards: noise_files(wildcards, "table5", "adaptive"),
    output:
        tables=multiext("{root}/table5", ".csv", ".md", ".tex"),
        page=in_report("{root}/notebooks/table5.html", "Tables", "Table 5"),
    log:
        executed="{root}/notebooks/table5.ipynb",
        text="{root}/logs/table5.log",
    message:
        "Table 5 of {wildcards.root}."


use rule table1 as table6 with:
    input:
        notebook="notebooks/table6.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "table6", "accuracy.csv"),
        benchmark=lambda wildcards: benchmark_files(wildcards, "table6"),
    output:
        tables=multiext("{root}/table6", ".csv", ".md", ".tex"),
        page=in_report("{root}/notebooks/table6.html", "Tables", "Table 6"),
    log:
        executed="{root}/notebooks/table6.ipynb",
        text="{root}/logs/table6.log",
    message:
        "Table 6 of {wildcards.root}."


use rule table1 as readings with:
    input:
        notebook="notebooks/readings.ipynb",
        paper="config/paper_values.csv",
        accuracy=lambda wildcards: run_files(wildcards, "readings", "accuracy.csv"),
        codes=lambda wildcards: run_files(wildcards, "readings", "codes.csv"),
        sweep=lambda wildcards: noise_files(wildcards, "readings", "sweep"),
        adaptive=lambda wildcards: noise_files(wildcards, "readings", "adaptive"),
    output:
        tables=multiext("{root}/readings", ".csv", ".md", ".tex"),
        page=in_report("{root}/notebooks/readings.html", "Tables", "Two readings"),
    log:
        executed="{root}/notebooks/readings.ipynb",
        text="{root}/logs/readings.log",
    message:
        "The two readings of the layer of {wildcards.root}."


use rule table1 as figure1 with:
    input:
        notebook="notebooks/figure1.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure1", "accuracy.csv"),
        pictures=lambda wildcards: run_files(wildcards, "figure1", "inversion.npz"),
    output:
        figure="{root}/figure1.pdf",
        picture=in_report("{root}/figure1.png", "Figures", "Figure 1"),
        page="{root}/notebooks/figure1.html",
    log:
        executed="{root}/notebooks/figure1.ipynb",
        text="{root}/logs/figure1.log",
    message:
        "Figure 1 of {wildcards.root}."


use rule table1 as figure2 with:
    input:
        notebook="notebooks/figure2.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure2", "accuracy.csv"),
        sweep=lambda wildcards: noise_files(wildcards, "figure2", "sweep"),
    output:
        figure="{root}/figure2.pdf",
        picture=in_report("{root}/figure2.png", "Figures", "Figure 2"),
        page="{root}/notebooks/figure2.html",
    log:
        executed="{root}/notebooks/figure2.ipynb",
        text="{root}/logs/figure2.log",
    message:
        "Figure 2 of {wildcards.root}."


use rule table1 as figure3 with:
    input:
        notebook="notebooks/figure3.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure3", "accuracy.csv"),
        peaks=lambda wildcards: noise_files(wildcards, "figure3", "peaks"),
        lines=lambda wildcards: noise_files(wildcards, "figure3", "lines"),
        sweep=lambda wildcards: noise_files(wildcards, "figure3", "sweep"),
        adaptive=lambda wildcards: noise_files(wildcards, "figure3", "adaptive"),
    output:
        figure="{root}/figure3.pdf",
        picture=in_report("{root}/figure3.png", "Figures", "Figure 3"),
        page="{root}/notebooks/figure3.html",
    log:
        executed="{root}/notebooks/figure3.ipynb",
        text="{root}/logs/figure3.log",
    message:
        "Figure 3 of {wildcards.root}."


use rule table1 as figure4 with:
    input:
        notebook="notebooks/figure4.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure4", "accuracy.csv"),
        scores=lambda wildcards: run_files(wildcards, "figure4", "inversion.csv"),
        pictures=lambda wildcards: run_files(wildcards, "figure4", "inversion.npz"),
    output:
        figure="{root}/figure4.pdf",
        picture=in_report("{root}/figure4.png", "Figures", "Figure 4"),
        page="{root}/notebooks/figure4.html",
    log:
        executed="{root}/notebooks/figure4.ipynb",
        text="{root}/logs/figure4.log",
    message:
        "Figure 4 of {wildcards.root}."


use rule table1 as figure5 with:
    input:
        notebook="notebooks/figure5.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure5", "accuracy.csv"),
        dictionary=lambda wildcards: run_files(wildcards, "figure5", "dictionary.csv"),
    output:
        figure="{root}/figure5.pdf",
        picture=in_report("{root}/figure5.png", "Figures", "Figure 5"),
        page="{root}/notebooks/figure5.html",
    log:
        executed="{root}/notebooks/figure5.ipynb",
        text="{root}/logs/figure5.log",
    message:
        "Figure 5 of {wildcards.root}."


use rule table1 as figure6 with:
    input:
        notebook="notebooks/figure6.ipynb",
        accuracy=lambda wildcards: run_files(wildcards, "figure6", "accuracy.csv"),
        codes=lambda wildcards: run_files(wildcards, "figure6", "codes.csv"),
    output:
        figure="{root}/figure6.pdf",
        picture=in_report("{root}/figure6.png", "Figures", "Figure 6"),
        page="{root}/notebooks/figure6.html",
    log:
        executed="{root}/notebooks/figure6.ipynb",
        text="{root}/logs/figure6.log",
    message:
        "Figure 6 of {wildcards.root}."


use rule table1 as figure_attacks with:
    input:
        notebook="notebooks/figure_attacks.ipynb",
        accuracy=lambda wildcards: run_files(
            wildcards, "figure_attacks", "accuracy.csv"
        ),
        attacks=lambda wildcards: run_files(
            wildcards, "figure_attacks", "attack-adaptive.csv"
        ),
    output:
        figure="{root}/figure_attacks.pdf",
        picture=in_report("{root}/figure_attacks.png", "Figures", "Attacks"),
        page="{root}/notebooks/figure_attacks.html",
    log:
        executed="{root}/notebooks/figure_attacks.ipynb",
        text="{root}/logs/figure_attacks.log",
    message:
        "Accuracy against lambda under attack, of {wildcards.root}."


rule claims:
    input:
        "config/claims.yaml",
        lambda wildcards: tables_and_figures(FOLDERS[wildcards.root]),
    output:
        verdicts=multiext("{root}/claims", ".csv", ".md"),
        effects="{root}/effects.csv",
    log:
        "{root}/logs/claims.log",
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "The paper's claims, judged by {wildcards.root}."
    shell:
        "python -m sdnet claims {wildcards.root} > {log} 2>&1"


rule report:
    input:
        "docs/differences.md",
        lambda wildcards: tables_and_figures(FOLDERS[wildcards.root]),
        notebook="notebooks/report.ipynb",
        claims="{root}/claims.csv",
    output:
        page=in_report("{root}/report.html", "Verdict", "The paper's claims"),
    log:
        executed="{root}/notebooks/report.ipynb",
        text="{root}/logs/report.log",
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "The report of {wildcards.root}."
    shell:
        "python -m sdnet report {wildcards.root} > {log.text} 2>&1"


rule track:
    input:
        lambda wildcards: targets(FOLDERS[wildcards.root]),
    output:
        touch("{root}/logs/tracked"),
    log:
        "{root}/logs/track.log",
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    message:
        "{wildcards.root}: what MLflow does not have yet."
    shell:
        "python -m sdnet track {wildcards.root} > {log} 2>&1"
