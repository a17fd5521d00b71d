"""Asks a server by the Flight SQL driver of ADBC and prints what came, as JSON.

    ask_flight.py ADDRESS TOKEN STATEMENT
"""

import json
import sys

import adbc_driver_flightsql.dbapi as flight

address, token, statement = sys.argv[1:4]


def rows(options):
    with flight.connect(address, db_kwargs=options) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return [[str(value) for value in row] for row in cursor.fetchall()]


by_token = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
said = {
    "by_token": rows(by_token),
    "by_password": rows({"username": "anybody", "password": token}),
}
with flight.connect(address, db_kwargs=by_token) as connection:
    objects = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    said["tables"] = sorted(
        table["table_name"]
        for catalog in objects
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    )
    said["server"] = connection.adbc_get_info()["vendor_name"]
    with connection.cursor() as cursor:
        try:
            cursor.execute("DROP TABLE training_steps")
        except flight.Error as error:
            said["refused"] = str(error)
print(json.dumps(said))
